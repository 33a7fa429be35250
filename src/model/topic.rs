//! Topics: their names, and their subscribers.
//!
//! A topic is known by `name`, or by `name/key`; each key makes a topic of its own.

use std::sync::Arc;

use super::id::{AgentId, NameError, check_key, check_topic};

/// The name under which a topic's subscriptions are kept.
///
/// # Errors
/// The topic name is invalid, or the key is not a valid agent key.
pub fn stored_name(name: &str, key: Option<&str>) -> Result<Arc<str>, NameError> {
    check_topic(name)?;
    let Some(key) = key else { return Ok(name.into()) };
    check_key(key)?;
    Ok(format!("{name}/{key}").into())
}

/// An agent that is subscribed to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Who.
    pub agent: AgentId,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its key.
    pub key: Arc<str>,
    /// The wire name of the message that it takes from the topic.
    pub message: Arc<str>,
}

/// What a commit does to a subscription. A commit has at most one write for each topic and agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionWrite {
    /// The topic's stored name.
    pub topic: Arc<str>,
    /// Whose it is.
    pub subscriber: Subscriber,
    /// Whether it is subscribed from now on, or is not any more. Doing either twice is as doing it once.
    pub subscribed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_makes_a_topic_of_its_own_and_follows_the_rules_of_keys() {
        assert_eq!(&*stored_name("prices", None).unwrap(), "prices");
        assert_eq!(&*stored_name("stock.low_2", Some("Zoë")).unwrap(), "stock.low_2/Zoë");
        for name in ["", "Prices", "a/b", "a..b", "a b"] {
            assert!(matches!(stored_name(name, None), Err(NameError::Topic(_))), "{name}");
        }
        for key in ["", "a/b", "a\nb", ".."] {
            assert!(matches!(stored_name("prices", Some(key)), Err(NameError::Key { .. })), "{key}");
        }
    }
}
