//! `GET /`: the dashboard, for a person with a browser. It is a client of the API and no more than that.
//!
//! Its files are plain modules of JavaScript and style sheets in `assets`, served as they are: there is nothing
//! to build. `index.html` loads `app.js`, which knows the pages; `page.js` reads and shows one of them. A debug
//! build reads the files from the source folder, where it is there, so that an edit is seen by reloading.
//!
//! To add a page: a file in `assets/pages`, a line in `app.js`, and one here.

use std::sync::LazyLock;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag, Header as _, IfNoneMatch},
};
use uuid::Uuid;

use super::{path, problem::Problem};

/// One file.
struct Asset {
    name: &'static str,
    bytes: &'static [u8],
}

/// The files by their names below `assets`.
macro_rules! assets {
    ($($name:literal)*) => {
        &[$(Asset { name: $name, bytes: include_bytes!(concat!("assets/", $name)) }),*]
    };
}

const ASSETS: &[Asset] = assets! {
    "index.html" "icon.svg" "style.css" "parts.css" "work.css"
    "api.js" "app.js" "dag.js" "dialog.js" "diff.js" "dom.js" "form.js" "format.js" "json.js" "keys.js"
    "live.js" "login.js" "page.js" "session.js" "spark.js" "theme.js" "timeline.js" "ui.js"
    "pages/access.js" "pages/agent.js" "pages/agents.js" "pages/config.js" "pages/crashes.js" "pages/dead.js" "pages/logs.js" "pages/overview.js" "pages/repair.js"
    "pages/schedules.js" "pages/send.js" "pages/system.js" "pages/task.js" "pages/tasks.js" "pages/tree.js"
};

/// What each file is known by, in the order of [`ASSETS`].
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| ASSETS.iter().map(|asset| tag(asset.bytes)).collect());

/// `GET /`: the frame that loads the rest. It holds nothing that is secret.
pub(super) async fn shell(request: HttpRequest) -> Result<HttpResponse, Problem> {
    serve(&request, "index.html")
}

/// `GET /assets/{file}`.
pub(super) async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    serve(&request, &path::part(&request, "file")?)
}

/// A browser asks each time whether what it has is still the same: a node that was upgraded is never shown by
/// half a dashboard.
fn serve(request: &HttpRequest, name: &str) -> Result<HttpResponse, Problem> {
    let found = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.name == name);
    let (asset, tag) = found.ok_or_else(|| Problem::not_found(format!("no file {}", name.escape_debug())))?;
    let (edited, mut tag) = (edited(asset.name), tag.clone());
    if let Some(bytes) = &edited {
        tag = self::tag(bytes);
    }
    let tag = EntityTag::new_strong(tag);
    let same = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(&tag)),
        Ok(IfNoneMatch::Any) | Err(_) => false,
    };
    let mut response = if same { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header(header::ETag(tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .content_type(content_type(asset.name));
    Ok(match (same, edited) {
        (true, _) => response.finish(),
        (false, Some(bytes)) => response.body(bytes),
        (false, None) => response.body(asset.bytes),
    })
}

fn tag(bytes: &[u8]) -> String {
    Uuid::new_v5(&Uuid::nil(), bytes).simple().to_string()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    }
}

/// The file as it stands in the source folder, for whoever works on it.
#[cfg(debug_assertions)]
fn edited(name: &str) -> Option<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard/assets");
    std::fs::read(folder.join(name)).ok()
}

#[cfg(not(debug_assertions))]
fn edited(_: &str) -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{
        body::to_bytes,
        http::{StatusCode, header::HeaderValue},
        test::TestRequest,
    };
    use std::{collections::BTreeSet, fs, path::Path};

    fn names(folder: &Path, before: &str, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{before}{}", entry.file_name().to_string_lossy());
            match entry.file_type().unwrap().is_dir() {
                true => self::names(&entry.path(), &format!("{name}/"), names),
                false => drop(names.insert(name)),
            }
        }
    }

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/dashboard/assets");
        let mut there = BTreeSet::new();
        names(&folder, "", &mut there);
        let embedded: BTreeSet<String> = ASSETS.iter().map(|asset| asset.name.to_owned()).collect();
        assert_eq!(there, embedded);
    }

    #[test]
    fn what_a_module_imports_is_there() {
        for asset in ASSETS.iter().filter(|asset| asset.name.ends_with(".js")) {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let folder = asset.name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let imports = |line: &&str| line.starts_with("import ") || line.starts_with("} from ");
            for line in text.lines().filter(imports) {
                let named = line.rsplit_once(" from \"").unwrap().1.split('"').next().unwrap();
                let path = match named.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None if folder.is_empty() => named.trim_start_matches("./").to_owned(),
                    None => format!("{folder}/{}", named.trim_start_matches("./")),
                };
                assert!(ASSETS.iter().any(|a| a.name == path), "{}: {named}", asset.name);
            }
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_nothing_is_parsed_as_html() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap().replace("http://www.w3.org/", "");
            for banned in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", " style=\""]
            {
                assert!(!text.contains(banned), "{} has {banned}", asset.name);
            }
        }
    }

    #[actix_web::test]
    async fn a_file_comes_whole_once_and_then_by_its_tag() {
        let request = TestRequest::default().to_http_request();
        let first = serve(&request, "app.js").unwrap();
        let tag = first.headers().get(header::ETAG).unwrap().clone();
        assert_eq!(first.headers().get(header::CACHE_CONTROL), Some(&HeaderValue::from_static("no-cache")));
        assert!(!to_bytes(first.into_body()).await.unwrap().is_empty());
        let again = TestRequest::default().insert_header((header::IF_NONE_MATCH, tag)).to_http_request();
        let same = serve(&again, "app.js").unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert!(to_bytes(same.into_body()).await.unwrap().is_empty());
        assert_eq!(serve(&again, "ui.js").unwrap().status(), StatusCode::OK);
        assert!(serve(&request, "../mod.rs").is_err() && serve(&request, "pages").is_err());
    }
}
