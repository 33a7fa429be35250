//! The node's bearer token: its source, and comparison in constant time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    config::{MIN_TOKEN_BYTES, Secret, Settings},
    model::access::draw,
};

/// The token's file in the data directory.
pub const FILE: &str = "token";

/// The token that clients must show.
#[derive(Debug, Clone)]
pub struct Token(Secret);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot use the token file {}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file holds nothing.
    #[error("the token file {} is empty: put a token in it, or remove it", .0.display())]
    Empty(PathBuf),
    /// The file holds what can be guessed.
    #[error(
        "the token in {} has fewer than {MIN_TOKEN_BYTES} bytes and can be guessed: draw one with `openssl rand -hex 32`", .0.display()
    )]
    Short(PathBuf),
}

impl Token {
    /// The token of the settings, of the file that they name, or of the data directory; there one
    /// is made on the first run, for the owner's eyes only.
    ///
    /// # Errors
    /// A file that cannot be read or written, or holds no token that is long enough.
    pub fn establish(settings: &Settings) -> Result<Self, TokenError> {
        if let Some(token) = Self::find(settings)? {
            return Ok(token);
        }
        let path = settings.node.data_dir.join(FILE);
        create(&path).map_err(|error| TokenError::File { path: path.clone(), error })?;
        // Whoever made it first has made it for all.
        read(&path)?.ok_or(TokenError::Empty(path))
    }

    /// The same, but nothing is made: what a client has.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no token that is long enough.
    pub fn find(settings: &Settings) -> Result<Option<Self>, TokenError> {
        if let Some(token) = &settings.http.token {
            return Ok(Some(Self(token.clone())));
        }
        match &settings.http.token_file {
            Some(path) => match read(path)? {
                Some(token) => Ok(Some(token)),
                None => Err(TokenError::File { path: path.clone(), error: io::ErrorKind::NotFound.into() }),
            },
            None => read(&settings.node.data_dir.join(FILE)),
        }
    }

    /// Whether `shown` is it, in a time that does not tell how much of it is right.
    pub fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.reveal().as_bytes();
        let mut differ = u8::from(own.len() != shown.len());
        for (n, byte) in shown.iter().enumerate() {
            // Past the end of our own it is compared with itself, flipped: never equal.
            differ |= byte ^ own.get(n).copied().unwrap_or(!*byte);
        }
        std::hint::black_box(differ) == 0
    }

    /// The text, for the header of a client.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// What a client keeps of it.
    pub(crate) fn into_secret(self) -> Secret {
        self.0
    }
}

fn read(path: &Path) -> Result<Option<Token>, TokenError> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Err(TokenError::Empty(path.to_owned())),
        Ok(text) if text.trim().len() < MIN_TOKEN_BYTES => Err(TokenError::Short(path.to_owned())),
        Ok(text) => Ok(Some(Token(text.trim().to_owned().into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TokenError::File { path: path.to_owned(), error }),
    }
}

/// Writes a fresh token beside `path` and links it there: it appears whole, and only once.
fn create(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let draft = path.with_extension(format!("{}.new", Uuid::new_v4().simple()));
    let made = write_private(&draft, format!("{}\n", draw()).as_bytes());
    let linked = made.and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

#[cfg(not(unix))]
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn settings(dir: &Path, sets: &[&str]) -> Settings {
        let sets = sets.iter().map(|s| (*s).to_owned()).collect();
        let sources = Sources { cwd: dir.into(), data_dir: Some(dir.into()), sets, ..Sources::default() };
        load(&sources).unwrap()
    }

    #[test]
    fn a_token_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(&dir.path().join("data"), &[]);
        assert!(Token::find(&settings).unwrap().is_none());
        let first = Token::establish(&settings).unwrap();
        let again = Token::establish(&settings).unwrap();
        assert!(first.is(again.reveal().as_bytes()) && first.reveal().len() > 60);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.path().join("data/token")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let files = fs::read_dir(dir.path().join("data")).unwrap().count();
        assert_eq!(files, 1, "no draft is left behind");
    }

    #[test]
    fn settings_win_over_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::establish(&settings(dir.path(), &["http.token=mine-0123456789ab"])).unwrap();
        assert_eq!(token.reveal(), "mine-0123456789ab");
        let file = dir.path().join("elsewhere");
        let set = format!("http.token_file={}", file.display());
        assert!(matches!(Token::establish(&settings(dir.path(), &[&set])), Err(TokenError::File { .. })));
        fs::write(&file, "\n").unwrap();
        assert!(matches!(Token::establish(&settings(dir.path(), &[&set])), Err(TokenError::Empty(_))));
        fs::write(&file, "guess-me\n").unwrap();
        assert!(matches!(Token::establish(&settings(dir.path(), &[&set])), Err(TokenError::Short(_))));
        fs::write(&file, "theirs-0123456789\n").unwrap();
        assert_eq!(Token::establish(&settings(dir.path(), &[&set])).unwrap().reveal(), "theirs-0123456789");
    }

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token("abc".to_owned().into());
        assert!(token.is(b"abc"));
        for wrong in [&b""[..], b"ab", b"abd", b"abcd", b"abc\0", b"ABC"] {
            assert!(!token.is(wrong), "{wrong:?}");
        }
    }
}
