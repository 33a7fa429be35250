//! A browser without a window, driven over its own protocol: JSON messages, each ended by a NUL, through a pipe.
//!
//! `let page = Browser::open(&url);` starts it with a profile of its own; dropped, it ends. Whatever the page
//! logged, threw or asked for is kept, to be judged at the end.
#![allow(dead_code)] // each test binary uses a part of it

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "install.rs"]
mod install;
use install::{CHROME, CHROMIUM, find, folder};

/// How long the browser may take for an answer, and a page until it is as it should be.
const PATIENCE: Duration = Duration::from_secs(30);
const ARGUMENTS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
];
/// The browser reads its third file and writes its fourth; the shell puts the pipes there.
const PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null"#;

/// A page in a browser of its own.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the page logged as an error, or threw.
    pub complaints: Vec<String>,
    /// What it asked for.
    pub requests: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, and shows a page in it.
    pub fn open(url: &str) -> Self {
        let program = match find(&CHROMIUM).or_else(|| find(&CHROME)) {
            Some(folder) if folder.join(CHROMIUM.binary).is_file() => folder.join(CHROMIUM.binary),
            Some(folder) => folder.join(CHROME.binary),
            None => folder(&CHROMIUM).join(CHROMIUM.binary),
        };
        let profile = TempDir::new().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", PIPES]).arg(program).args(ARGUMENTS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, from) = channel();
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while pipe.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                if serde_json::from_slice(&message).is_ok_and(|said| tell.send(said).is_err()) {
                    return;
                }
                message.clear();
            }
        });
        let to = child.stdin.take().unwrap();
        let (complaints, requests) = (Vec::new(), Vec::new());
        let mut browser =
            Self { child, to, from, session: None, calls: 0, complaints, requests, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1_320, 900, false);
        browser.call("Page.navigate", json!({"url": url}));
        browser
    }

    /// One command of the protocol, and its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let said = self.from.recv_timeout(left).unwrap_or_else(|e| panic!("{method}: {e}"));
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
            self.note(&said);
        }
    }

    fn note(&mut self, said: &Value) {
        let params = &said["params"];
        match said["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(format!("{} {}", params["entry"]["text"], params["entry"]["url"]));
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" || params["type"] == "warning" => {
                self.complaints.push(params["args"].to_string());
            }
            Some("Network.requestWillBeSent") => {
                self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            _ => {}
        }
    }

    /// What an expression of the page comes to.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Waits until a condition of the page holds.
    #[track_caller]
    pub fn until(&mut self, condition: &str) {
        let patience = PATIENCE.as_millis() * 2 / 3;
        let held = self.eval(&format!(
            "new Promise((done) => {{
               const begun = Date.now();
               const look = () => {{
                 let holds = false;
                 try {{ holds = Boolean({condition}); }} catch {{}}
                 if (holds || Date.now() - begun > {patience}) done(holds);
                 else setTimeout(look, 20);
               }};
               look();
             }})"
        ));
        if held != true {
            let text = self.eval("document.body.innerText");
            panic!(
                "never: {condition}\nthe page complained: {:?}\nand shows: {}",
                self.complaints,
                text.as_str().unwrap_or_default()
            );
        }
    }

    /// Waits until the text stands on the page.
    #[track_caller]
    pub fn sees(&mut self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", Value::from(text)));
    }

    /// Clicks the first button or link with this text that can be seen, in a dialog where one is open.
    #[track_caller]
    pub fn click(&mut self, text: &str) {
        let find = format!(
            "[...(document.querySelector('dialog[open]') ?? document).querySelectorAll('button, a, summary')]
               .find((node) => node.textContent.trim() === {} && !node.disabled && node.offsetParent !== null)",
            Value::from(text)
        );
        self.until(&find);
        self.eval(&format!("{find}.click()"));
    }

    /// Puts a text into a field, as somebody who types does.
    #[track_caller]
    pub fn fill(&mut self, selector: &str, text: &str) {
        let node = format!("document.querySelector({})", Value::from(selector));
        self.until(&node);
        self.eval(&format!("{node}.focus()"));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let text = if key.chars().count() == 1 { key } else { "" };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { text };
        let down = json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Goes to a page of the dashboard, and waits until it shows something.
    #[track_caller]
    pub fn go(&mut self, hash: &str) {
        self.eval(&format!("location.hash = {}", Value::from(hash)));
        self.until(&format!(
            "location.hash === {} && document.querySelector('main .page, main .empty') \
             && !document.querySelector('main.stale, main .skeleton')",
            Value::from(hash)
        ));
    }

    /// How large the window is.
    pub fn size(&mut self, width: u32, height: u32, mobile: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Whether the system says that it is dark.
    pub fn dark(&mut self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([
            {"name": "prefers-color-scheme", "value": value},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Takes a picture of what can be seen.
    pub fn shoot(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"}));
        std::fs::write(file, decode(shot["data"].as_str().unwrap())).unwrap();
    }
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter_map(|c| DIGITS.iter().position(|d| *d == c)) {
        held = (held << 6) | digit as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
