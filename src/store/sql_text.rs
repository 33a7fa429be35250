//! SQL text functions, and searching labels as they are stored.

use diesel::{
    define_sql_function,
    sql_types::{Binary, Integer, Nullable, Text},
};

/// How a label begins a list of labels as it is stored, and how it follows upon another.
pub(super) fn tag_places(tag: &str) -> [String; 2] {
    let text = serde_json::Value::from(tag).to_string();
    [format!("[{text}"), format!(",{text}")]
}

define_sql_function! {
    /// The text with each occurrence replaced: what both databases have to look for one.
    fn replace(text: Nullable<Text>, from: Text, to: Text) -> Nullable<Text>;
}

define_sql_function! {
    /// A part of the text, counted in letters from 1.
    fn substr(text: Text, from: Integer, length: Integer) -> Text;
}

define_sql_function! {
    /// A part of the bytes, counted from 1.
    #[sql_name = "substr"]
    fn part(bytes: Nullable<Binary>, from: Integer, length: Integer) -> Nullable<Binary>;
}

/// How many letters a text has, as the databases want it.
pub(super) fn letters(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX)
}
