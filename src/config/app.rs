//! `[app.SECTION]`: the settings of the program built on the library.

use serde::de::DeserializeOwned;

use super::{
    check::{is_secret, unfit},
    error::{Errors, Problem},
    layer::{Key, node},
    settings::Settings,
    show::Origin,
};

impl Settings {
    /// `[app.SECTION]` as the program's own struct. Text from the environment or an argument is
    /// read as the number or truth value that a field asks for.
    ///
    /// # Errors
    /// A value that does not fit, or else every key that the struct does not know, each with its place.
    pub fn app_as<S: DeserializeOwned>(&self, section: &str) -> Result<S, Errors> {
        let tree = node(&String::new(), &self.app(section));
        let mut unknown = Vec::new();
        let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let mut track = serde_path_to_error::Track::new();
        let read = S::deserialize(serde_ignored::Deserializer::new(
            serde_path_to_error::Deserializer::new(tree, &mut track),
            &mut ignored,
        ));
        let problem = |path: &str, message: String| {
            let key = self.app_key(section, path);
            Problem { origin: self.origin(&key), key, message, hint: None }
        };
        let unfit = |path: &str, message: String| match problem(path, message) {
            secret if is_secret(&secret.key) => {
                let (message, hint) = unfit();
                Problem { message, hint, ..secret }
            }
            other => other,
        };
        let message = "the program knows no such key";
        let mut problems: Vec<_> = unknown.iter().map(|path| problem(path, message.to_owned())).collect();
        match read {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => {}
            Err(error) => problems.push(unfit(&track.path().to_string(), error.to_string())),
        }
        Err(Errors(problems))
    }

    fn app_key(&self, section: &str, path: &str) -> String {
        let mut parts = vec!["app".to_owned(), section.to_owned()];
        parts.extend(path.split('.').filter(|part| !part.is_empty()).map(str::to_owned));
        Key(parts).to_string()
    }

    /// Where a key's value came from.
    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.show().iter().find(|shown| shown.key == key).map(|shown| shown.origin.clone())
    }
}
