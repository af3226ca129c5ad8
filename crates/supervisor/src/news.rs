//! What the template is told about the server, if it wants to know: it calls the functions that a site has for that.

use crate::supervisor::{Phase, Supervisor};
use crate::worker_body::News;

impl Supervisor<'_> {
    /// Tells the template of this generation what has happened; the next one if there is none, where that still matters then.
    pub(crate) fn tell_template(&mut self, news: News) {
        if !self.body.wants_news() {
            return;
        }
        let generation = self.generation;
        let template = self.templates.iter_mut().find(|template| template.generation == generation);
        match (template, news) {
            (Some(template), _) => template.tell(news),
            (None, News::Exited { .. }) => self.untold.push(news),
            (None, _) => {}
        }
    }

    /// Tells it how many workers there are to be, and when they serve alone.
    pub(crate) fn tell_template_of_workers(&mut self) {
        if self.told_workers != self.target && self.phase != Phase::Starting {
            self.told_workers = self.target;
            self.tell_template(News::Workers(self.target));
        }
        if self.phase != Phase::Serving || !self.body.wants_news() {
            return;
        }
        if let [template] = self.templates.as_mut_slice()
            && template.is_ready()
            && !template.knows_of_serving
        {
            template.knows_of_serving = true;
            template.tell(News::Serving);
        }
    }

    /// All workers have ended: tells the template, and returns whether it has ended, too.
    pub(crate) fn templates_end(&mut self) -> bool {
        if self.body.wants_news() {
            let waiting = self.templates.iter_mut().filter(|template| template.slots().next().is_none());
            for template in waiting {
                if !template.knows_of_end() {
                    template.tell(News::Ending);
                }
            }
        }
        self.templates.is_empty()
    }
}
