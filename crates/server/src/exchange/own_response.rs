//! Responses of the server or the site in place of the application's: error pages, redirects, what policies respond.

use anygate_policy::policies::OwnResponse;
use anygate_proto::application::Response;

use super::error_page::{error_page, error_response};
use super::response::ResponseWriter;

impl ResponseWriter<'_> {
    /// Responds with an error page of our own; possible while nothing was started.
    pub(crate) fn refuse(&mut self, status: u16) {
        let https = self.admitted.is_some_and(|admitted| admitted.https);
        let site = self.rules.site.as_deref();
        let (head, body) = error_response(site, self.head, self.admitted.is_some(), https, status);
        // Nothing can fail here but the socket, and then there is no client to tell.
        let _ = self.start(&head, Some(body.len() as u64)).and_then(|()| self.write(&body));
    }

    /// Sends a response of the site; possible while nothing was started.
    pub(crate) fn send_own(&mut self, response: OwnResponse) {
        let request = self.head;
        // As above.
        let _ = response.send(request, self);
    }

    /// Sends the client elsewhere; possible while nothing was started.
    pub(crate) fn redirect(&mut self, status: u16, place: &str) {
        let (mut head, body) = error_page(status);
        if head.push_field(b"Location", place.as_bytes()).is_err() {
            return self.refuse(400);
        }
        // As above.
        let _ = self.start(&head, Some(body.len() as u64)).and_then(|()| self.write(body.as_bytes()));
    }
}
