//! Server-Sent Events, read line by line.

use std::io::{self, BufRead};

/// What a stream says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Frame {
    /// The id to go on from; kept from the frame before where it names none.
    pub id: String,
    /// The event's name.
    pub event: String,
    /// Its data. A frame without any is a sign of life.
    pub data: String,
}

/// The frames of a stream.
pub(super) struct Frames<R> {
    source: R,
    id: String,
}

impl<R: BufRead> Frames<R> {
    pub fn new(source: R) -> Self {
        Self { source, id: String::new() }
    }

    /// The next frame; a comment is one without data.
    fn frame(&mut self) -> io::Result<Option<Frame>> {
        let (mut frame, mut line, mut data) = (Frame::default(), String::new(), Vec::new());
        loop {
            line.clear();
            if self.source.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                frame.id.clone_from(&self.id);
                frame.data = data.join("\n");
                return Ok(Some(frame));
            }
            let (name, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => value.clone_into(&mut self.id),
                "event" => value.clone_into(&mut frame.event),
                "data" => data.push(value.to_owned()),
                _ => {}
            }
        }
    }
}

impl<R: BufRead> Iterator for Frames<R> {
    type Item = io::Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.frame().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_the_last_id_and_join_their_data() {
        let text =
            "retry: 5\n\nid: b:1\nevent: x.y\ndata: {\"a\":1}\n\n: hm\n\ndata: 1\ndata:2\r\n\r\nid: half";
        let frames: Vec<Frame> = Frames::new(text.as_bytes()).map(Result::unwrap).collect();
        let frame = |id: &str, event: &str, data: &str| Frame {
            id: id.into(),
            event: event.into(),
            data: data.into(),
        };
        let expected = [
            frame("", "", ""),
            frame("b:1", "x.y", "{\"a\":1}"),
            frame("b:1", "", ""),
            frame("b:1", "", "1\n2"),
        ];
        assert_eq!(frames, expected);
    }
}
