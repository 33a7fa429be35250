//! Where a request came from, and whether a browser marks it as cross-site.

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{self, HeaderMap},
    },
};

/// Where a request came from: by the proxy's word where there is one, who saw the last hop itself.
pub(in super::super) fn address_of(request: &HttpRequest, behind_proxy: bool) -> Option<String> {
    let forwarded = request.headers().get_all(header::X_FORWARDED_FOR).last().filter(|_| behind_proxy);
    let forwarded = forwarded.and_then(|all| all.to_str().ok()?.rsplit(',').next()).map(str::trim);
    let forwarded = forwarded.filter(|text| text.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned);
    forwarded.or_else(|| request.peer_addr().map(|peer| peer.ip().to_string()))
}

/// Whether it says so. `host` is the authority that the request was sent to.
///
/// Pages may be navigated to from anywhere (a link in a chat): they hold nothing, and their cookie stays behind.
pub(in super::super) fn is_foreign(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    host: Option<&str>,
) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let named = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let is_own =
            matches!((named, host), (Some((_, from)), Some(host)) if from.eq_ignore_ascii_case(host));
        if !is_own {
            return true;
        }
    }
    let says = |name: &str| headers.get(name).map(header::HeaderValue::as_bytes);
    match says("Sec-Fetch-Site") {
        None | Some(b"same-origin" | b"none") => false,
        Some(_) => {
            let navigates = says("Sec-Fetch-Mode") == Some(b"navigate")
                && says("Sec-Fetch-Dest") == Some(b"document")
                && *method == Method::GET;
            !navigates || path.starts_with("/api/") || path == "/metrics"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use header::{HeaderName, HeaderValue};

    fn foreign(method: Method, path: &str, pairs: &[(&'static str, &'static str)]) -> bool {
        let pairs = pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_bytes(n.as_bytes()).unwrap(), HeaderValue::from_static(v)));
        is_foreign(&method, path, &pairs.collect(), Some("localhost:7710"))
    }

    #[test]
    fn programs_and_our_own_pages_are_let_in() {
        let api = "/api/v1/status";
        assert!(!foreign(Method::POST, api, &[]));
        assert!(!foreign(Method::POST, api, &[("origin", "http://localhost:7710")]));
        assert!(!foreign(Method::POST, api, &[("origin", "https://LOCALHOST:7710")]));
        assert!(!foreign(Method::GET, api, &[("sec-fetch-site", "same-origin")]));
        assert!(!foreign(Method::GET, "/", &[("sec-fetch-site", "none")]));
    }

    #[test]
    fn pages_of_others_are_not() {
        let api = "/api/v1/events";
        for origin in
            ["http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:7710", "x", ""]
        {
            assert!(foreign(Method::GET, api, &[("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "odd"] {
            assert!(foreign(Method::GET, api, &[("sec-fetch-site", site)]), "{site}");
        }
        let both = [("origin", "http://localhost:7710"), ("sec-fetch-site", "cross-site")];
        assert!(foreign(Method::POST, api, &both));
        assert!(is_foreign(
            &Method::GET,
            api,
            &[(header::ORIGIN, HeaderValue::from_static("http://a"))].into_iter().collect(),
            None
        ));
    }

    #[test]
    fn a_link_elsewhere_leads_to_the_page_alone() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(!foreign(Method::GET, "/", &link) && !foreign(Method::GET, "/login", &link));
        assert!(foreign(Method::GET, "/api/v1/status", &link) && foreign(Method::GET, "/metrics", &link));
        assert!(foreign(Method::POST, "/login", &link));
        let frame = [link[0], link[1], ("sec-fetch-dest", "iframe")];
        assert!(foreign(Method::GET, "/", &frame));
    }
}
