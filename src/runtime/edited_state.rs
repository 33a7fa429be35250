//! A state that a person has edited: read as a restore would, with the location of each error.

use serde_ignored::Path;

use crate::{
    Invalid,
    agent::Agent,
    model::json::pointer,
    runtime::{cell::restore::reads_back, crashes::guard},
};

/// At most so many unknown fields are told.
const MAX_FINDINGS: usize = 32;

/// Reads a proposed state, and writes it as the agent itself would: what it leaves out stands there by its
/// default.
///
/// # Errors
/// The first finding of the type, all unknown fields, or what the agent's own check says.
pub(super) fn accept<A: Agent>(body: &[u8]) -> Result<Vec<u8>, Invalid> {
    let wrong = |(message, site): (String, Option<String>)| {
        let at = site.map(|site| format!(" at {site}")).unwrap_or_default();
        Invalid::at("", format!("reading it panicked: {message}{at}"))
    };
    let agent: A = guard(|| read(body)).map_err(wrong)??;
    let checked = guard(|| agent.validate()).map_err(wrong)?;
    checked.map_err(|error| Invalid::at("", format!("{error:#}")))?;
    let written = guard(move || serde_json::to_vec(&agent)).map_err(wrong)?;
    let written = written.map_err(|error| Invalid::at("", format!("it cannot be written: {error}")))?;
    let back = reads_back::<A>(&written);
    back.map_err(|why| Invalid::at("", format!("it would not read back: {why}")))?;
    Ok(written)
}

fn read<A: Agent>(body: &[u8]) -> Result<A, Invalid> {
    let mut de = serde_json::Deserializer::from_slice(body);
    let agent: A = serde_path_to_error::deserialize(&mut de)
        .map_err(|error| Invalid::at(pointer(error.path()), error.inner().to_string()))?;
    de.end().map_err(|error| Invalid::at("", error.to_string()))?;
    let mut unknown = Vec::new();
    let mut de = serde_json::Deserializer::from_slice(body);
    let again: Result<A, _> = serde_ignored::deserialize(&mut de, |path| {
        if unknown.len() < MAX_FINDINGS {
            unknown.push((place(&path), "the agent does not know this field".to_owned()));
        }
    });
    again.map_err(|error| Invalid::at("", error.to_string()))?;
    if unknown.is_empty() { Ok(agent) } else { Err(Invalid(unknown)) }
}

/// Where a field stands, as a JSON pointer.
fn place(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", place(parent)),
        Path::Map { parent, key } => {
            format!("{}/{}", place(parent), key.replace('~', "~0").replace('/', "~1"))
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            place(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{Handler, Result, Turn, message};

    #[derive(Default, Serialize, Deserialize)]
    struct Jar {
        #[serde(default)]
        sweets: Vec<Sweet>,
    }
    #[derive(Serialize, Deserialize)]
    struct Sweet {
        n: u32,
    }
    #[derive(Clone, Serialize, Deserialize, schemars::JsonSchema)]
    struct Look {}
    message!(Look -> u32);
    impl Agent for Jar {
        const KIND: &'static str = "jar";
        type Messages = Look;
        fn validate(&self) -> Result<()> {
            anyhow::ensure!(self.sweets.len() < 3, "too many sweets");
            Ok(())
        }
    }
    impl Handler<Look> for Jar {
        async fn handle(&mut self, _: Look, _: &Turn<Self>) -> Result<u32> {
            Ok(0)
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let places = |body: &str| {
            let found = accept::<Jar>(body.as_bytes()).unwrap_err();
            found.0.into_iter().map(|(place, _)| place).collect::<Vec<_>>()
        };
        assert_eq!(places(r#"{"sweets":[{"n":1},{"n":"x"}]}"#), ["/sweets/1/n"]);
        assert_eq!(places(r#"{"sweets":[{"n":1,"m":2}],"a/b":3}"#), ["/sweets/0/m", "/a~1b"]);
        assert_eq!(places(r#"{"sweets":[{"n":1},{"n":1},{"n":1}]}"#), [""], "the agent's own check");
        assert_eq!(places("{"), [""]);
        assert_eq!(accept::<Jar>(b"{ }").unwrap(), br#"{"sweets":[]}"#);
    }
}
