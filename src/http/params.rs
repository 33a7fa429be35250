//! Query parameters. Invalid values are errors; unknown names are ignored.

use std::{str::FromStr, time::Duration};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Query};
use std::future::{Ready, ready};

use super::problem::Problem;
use crate::model::{period::Period, units::parse_duration};

/// The largest page.
const MAX_PAGE: usize = 1_000;

/// The parameters behind the `?`.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl FromRequest for Params {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::read(request.query_string()))
    }
}

impl Params {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        let read = Query::<Vec<(String, String)>>::from_query(text);
        let pairs = read.map_err(|_| Problem::malformed("the query cannot be read"))?;
        Ok(Self(pairs.into_inner()))
    }

    /// The text of a parameter; absent and empty are the same.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut found = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Problem::malformed(format!("`{name}` is given twice"))),
            (one, _) => Ok(one.filter(|text| !text.is_empty())),
        }
    }

    /// The same, owned.
    pub(super) fn owned(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.text(name)?.map(str::to_owned))
    }

    /// `timeout`: how long the caller has patience.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Problem> {
        match self.duration("timeout")? {
            Some(none) if none.is_zero() => {
                Err(Problem::malformed("`timeout` must be longer than nothing: write 30s"))
            }
            given => Ok(given),
        }
    }

    /// A parameter of a type that reads itself.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, example: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = |_| {
            Problem::malformed(format!("`{name}={}` cannot be read: write {example}", text.escape_debug()))
        };
        text.parse().map(Some).map_err(wrong)
    }

    /// A duration such as `30s`.
    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse_duration(text).map(Some).map_err(|error| Problem::malformed(format!("`{name}`: {error}")))
    }

    /// `since` and `until`: moments.
    pub(super) fn period(&self) -> Result<Period, Problem> {
        let moment = "a moment such as 2026-01-31T12:00:00Z";
        Ok(Period { since: self.parsed("since", moment)?, until: self.parsed("until", moment)? })
    }

    /// `limit`: 1 to 1,000.
    pub(super) fn limit(&self) -> Result<Option<usize>, Problem> {
        match self.parsed("limit", "a number from 1 to 1000")? {
            Some(0) => Err(Problem::malformed("`limit` is 1 at least")),
            Some(n) if n > MAX_PAGE => Err(Problem::malformed(format!("`limit` is {MAX_PAGE} at most"))),
            limit => Ok(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_or_refused() {
        let params = Params::read("a=1&b=x%20y&timeout=30s&empty=&limit=10").unwrap();
        assert_eq!(params.parsed::<u8>("a", "a number").unwrap(), Some(1));
        assert_eq!(params.text("b").unwrap(), Some("x y"));
        assert_eq!(params.text("empty").unwrap(), None);
        assert_eq!(params.duration("timeout").unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(params.limit().unwrap(), Some(10));
        assert_eq!(params.period().unwrap(), Period::default());
        let period = Params::read("since=2026-01-31T12:00:00%2B01:00&until=").unwrap().period().unwrap();
        assert_eq!((period.since, period.until), ("2026-01-31T11:00:00Z".parse().ok(), None));
        for bad in ["since=10m", "until=x", "since=2026-01-31"] {
            assert_eq!(Params::read(bad).unwrap().period().unwrap_err().code(), "malformed", "{bad}");
        }
        for bad in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1&limit=2"] {
            assert_eq!(Params::read(bad).unwrap().limit().unwrap_err().code(), "malformed", "{bad}");
        }
        let bare = Params::read("timeout=30").unwrap().duration("timeout").unwrap_err();
        assert!(bare.to_string().contains("30s"), "{bare}");
    }
}
