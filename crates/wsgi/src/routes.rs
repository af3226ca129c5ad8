//! The template of a request's path, such as `/users/<id>`, which an application may put into its environ: paths are too many
//! to count by, and often secret.

use anygate_proto::application::Response;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::call::Call;

/// Key of the template.
const ROUTE: &str = "anygate.route";

/// Looks for templates, where they are wanted.
pub(crate) struct Routes(Option<Py<PyString>>);

impl Routes {
    pub(crate) fn new(py: Python<'_>, are_wanted: bool) -> Routes {
        Routes(are_wanted.then(|| PyString::intern(py, ROUTE).unbind()))
    }

    /// Whether they are wanted.
    pub(crate) fn are_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Tells the server what the application has put there, if that is text. To be called when it has responded.
    pub(crate) fn tell(&self, call: &Call, environ: &Bound<'_, PyDict>) {
        let Some(key) = &self.0 else { return };
        // A key that cannot be looked up, or is no text, names nothing.
        let Ok(Some(route)) = environ.get_item(key) else { return };
        if let Ok(route) = route.cast::<PyString>() {
            let route = route.to_string_lossy();
            // A call that is over has been counted.
            let _ = call.response.with(|response: &mut (dyn Response + Send)| response.set_route(&route));
        }
    }
}
