//! An agent's list of messages: what its mailbox holds, and what it accepts as JSON.
//!
//! `type Messages = (Add, Get, (Done<Order>,))` gives an enum with one variant a message, nested as
//! the tuple is: no allocation for a message on its way, and an unlisted message does not compile.

use std::{any::Any, marker::PhantomData, sync::Arc};

use serde_json::value::RawValue;

use super::{
    Agent, Handler,
    drops::Guarded,
    guard::guard,
    letter::{AnyLetter, Envelope, Letter, Meta, Ran, ReplyTo},
    message::{Invalid, Message},
    slot::ReplyTx,
    turn::Turn,
};
use crate::{
    agent::letter::JsonAnswer,
    model::json::{pointer, whole_numbers},
};

/// The envelope of an agent's mailbox.
pub type EnvelopeOf<A> = <<A as Agent>::Messages as Messages<A>>::Envelope;
#[doc(hidden)]
pub type Wrap<E, W> = Arc<dyn Fn(E) -> W + Send + Sync>;

/// A message, or a tuple of messages (nested as you like, up to twelve each).
pub trait Messages<A: Agent> {
    /// What the mailbox holds.
    type Envelope: Envelope<A>;
    #[doc(hidden)]
    fn describe(door: &mut Door<A>, wrap: Wrap<Self::Envelope, EnvelopeOf<A>>);
}

impl<A: Handler<M>, M: Message> Messages<A> for M {
    type Envelope = Letter<M>;
    fn describe(door: &mut Door<A>, wrap: Wrap<Self::Envelope, EnvelopeOf<A>>) {
        door.add::<M>(wrap);
    }
}

/// That a list holds a message. `At` says where, and is found by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{M}` is not listed in this agent's `Messages`",
    note = "what is not listed cannot be decoded after a restart: add it to `type Messages = (…);`"
)]
pub trait Lists<A: Agent, M: Message, At>: Messages<A> {
    #[doc(hidden)]
    fn wrap(letter: Letter<M>) -> Self::Envelope;
}

/// The message itself.
pub struct Leaf;
/// The `N`th entry of a tuple, and further in at `I`.
pub struct At<const N: usize, I>(PhantomData<I>);

impl<A: Handler<M>, M: Message> Lists<A, M, Leaf> for M {
    fn wrap(letter: Letter<M>) -> Letter<M> {
        letter
    }
}

/// Can be sent `M`: has a handler for it and lists it. `I` is found by the compiler.
pub trait Accepts<M: Message, I>: Handler<M> {
    #[doc(hidden)]
    fn wrap(letter: Letter<M>) -> EnvelopeOf<Self>;
}

impl<A: Handler<M>, M: Message, I> Accepts<M, I> for A
where
    A::Messages: Lists<A, M, I>,
{
    #[inline]
    fn wrap(letter: Letter<M>) -> EnvelopeOf<A> {
        <A::Messages as Lists<A, M, I>>::wrap(letter)
    }
}

/// The envelope of an agent without messages: there is none.
pub enum Nothing {}

impl<A: Agent> Envelope<A> for Nothing {
    fn letter(&self) -> &dyn AnyLetter {
        match *self {}
    }
    fn letter_mut(&mut self) -> &mut dyn AnyLetter {
        match *self {}
    }
    fn read_only(&self) -> bool {
        match *self {}
    }
    fn is_plain(&self) -> bool {
        match *self {}
    }
    fn wire_name(&self) -> &'static str {
        match *self {}
    }
    fn answer(&mut self, _: i64) {
        match *self {}
    }
    async fn run(&mut self, _: &mut A, _: &Turn<A>, _: bool) -> Ran {
        match *self {}
    }
}

impl<A: Agent> Messages<A> for () {
    type Envelope = Nothing;
    fn describe(_: &mut Door<A>, _: Wrap<Nothing, EnvelopeOf<A>>) {}
}

macro_rules! arity {
    ($E:ident: $($n:literal $t:ident $v:ident),+) => {
        /// The envelope of a tuple of this arity.
        #[doc(hidden)]
        pub enum $E<$($t),+> { $($v($t)),+ }

        impl<A: Agent, $($t: Envelope<A>),+> Envelope<A> for $E<$($t),+> {
            fn letter(&self) -> &dyn AnyLetter {
                match self { $(Self::$v(e) => e.letter()),+ }
            }
            fn letter_mut(&mut self) -> &mut dyn AnyLetter {
                match self { $(Self::$v(e) => e.letter_mut()),+ }
            }
            #[inline]
            fn read_only(&self) -> bool {
                match self { $(Self::$v(e) => e.read_only()),+ }
            }
            #[inline]
            fn is_plain(&self) -> bool {
                match self { $(Self::$v(e) => e.is_plain()),+ }
            }
            #[inline]
            fn wire_name(&self) -> &'static str {
                match self { $(Self::$v(e) => e.wire_name()),+ }
            }
            #[inline]
            fn answer(&mut self, version: i64) {
                match self { $(Self::$v(e) => e.answer(version)),+ }
            }
            async fn run(&mut self, agent: &mut A, turn: &Turn<A>, keep: bool) -> Ran {
                match self { $(Self::$v(e) => e.run(agent, turn, keep).await),+ }
            }
        }

        impl<A: Agent, $($t: Messages<A>),+> Messages<A> for ($($t,)+) {
            type Envelope = $E<$($t::Envelope),+>;
            fn describe(door: &mut Door<A>, wrap: Wrap<Self::Envelope, EnvelopeOf<A>>) {
                $({
                    let wrap = wrap.clone();
                    $t::describe(door, Arc::new(move |e| wrap($E::$v(e))));
                })+
            }
        }

        arity!(@at $E ($($t)+): $($n $t $v),+);
    };
    (@at $E:ident ($($all:ident)+): $n:literal $t:ident $v:ident $(, $ns:literal $ts:ident $vs:ident)*) => {
        impl<A: Agent, M: Message, I, $($all: Messages<A>),+> Lists<A, M, At<$n, I>> for ($($all,)+)
        where
            $t: Lists<A, M, I>,
        {
            #[inline]
            fn wrap(letter: Letter<M>) -> Self::Envelope {
                $E::$v($t::wrap(letter))
            }
        }
        arity!(@at $E ($($all)+): $($ns $ts $vs),*);
    };
    (@at $E:ident ($($all:ident)+):) => {};
}

arity!(E1: 0 T1 V1);
arity!(E2: 0 T1 V1, 1 T2 V2);
arity!(E3: 0 T1 V1, 1 T2 V2, 2 T3 V3);
arity!(E4: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4);
arity!(E5: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5);
arity!(E6: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6);
arity!(E7: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7);
arity!(E8: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7, 7 T8 V8);
arity!(E9: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7, 7 T8 V8, 8 T9 V9);
arity!(E10: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7, 7 T8 V8, 8 T9 V9, 9 T10 V10);
arity!(E11: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7, 7 T8 V8, 8 T9 V9, 9 T10 V10, 10 T11 V11);
arity!(E12: 0 T1 V1, 1 T2 V2, 2 T3 V3, 3 T4 V4, 4 T5 V5, 5 T6 V6, 6 T7 V7, 7 T8 V8, 8 T9 V9, 9 T10 V10, 10 T11 V11, 11 T12 V12);

/// How a message is decoded: body, where the answer goes, the rest of the letter.
type Decode<A> = Arc<
    dyn Fn(&RawValue, Option<ReplyTx<JsonAnswer>>, Option<Box<Meta>>) -> Result<EnvelopeOf<A>, Invalid>
        + Send
        + Sync,
>;

/// How a letter is made of a message that several get: a copy of it, if it is of the right type.
type Copied<A> = Arc<dyn Fn(&(dyn Any + Send + Sync)) -> Option<EnvelopeOf<A>> + Send + Sync>;

/// One message of an agent, as the JSON door knows it.
pub struct Entry<A: Agent> {
    /// What every surface shows of it.
    pub shape: Arc<Shape>,
    pub(crate) decode: Decode<A>,
    pub(crate) copy: Copied<A>,
}

/// A message's name and schemas.
pub struct Shape {
    /// The wire name.
    pub name: &'static str,
    /// Whether it only reads.
    pub read_only: bool,
    /// The message's JSON Schema.
    pub input: serde_json::Value,
    /// The reply's JSON Schema.
    pub reply: serde_json::Value,
    /// The refusal's JSON Schema.
    pub error: serde_json::Value,
    validator: std::sync::OnceLock<Option<jsonschema::Validator>>,
    read: fn(&RawValue) -> Result<(), Invalid>,
}

impl Shape {
    /// The shape of `M`.
    pub fn of<M: Message>(read_only: bool) -> Self {
        Self {
            name: M::NAME,
            read_only,
            input: schemars::schema_for!(M).to_value(),
            reply: schemars::schema_for!(M::Reply).to_value(),
            error: schemars::schema_for!(M::Error).to_value(),
            validator: std::sync::OnceLock::new(),
            read: |body| decode::<M>(body).map(drop),
        }
    }

    /// Checks a body against the message's schema.
    ///
    /// # Errors
    /// Every finding, by JSON pointer.
    pub fn check(&self, body: &serde_json::Value) -> Result<(), Invalid> {
        let validator = self.validator.get_or_init(|| jsonschema::validator_for(&self.input).ok());
        let Some(validator) = validator else { return Ok(()) };
        Invalid::check(validator, body)
    }

    /// Reads a body as its handler's caller will, and lets the message [check itself](Message::validate): for
    /// what is kept now and read later, when nobody is there to be told.
    ///
    /// # Errors
    /// The first finding of the type, or all of the message's own.
    pub(crate) fn read(&self, body: &RawValue) -> Result<(), Invalid> {
        (self.read)(body)
    }
}

/// Decodes a message; no body, `null` and `{}` are the same for a message without fields, `2.0` and `2` the
/// same whole number.
pub(crate) fn decode<M: Message>(body: &RawValue) -> Result<M, Invalid> {
    // Both are the message's own code, and run on threads that others need.
    guard(|| read::<M>(body)).unwrap_or_else(|(panic, site)| {
        let at = site.map(|site| format!(" at {site}")).unwrap_or_default();
        Err(Invalid::at("", format!("reading it panicked: {panic}{at}")))
    })
}

fn read<M: Message>(body: &RawValue) -> Result<M, Invalid> {
    let text = match body.get().trim() {
        "null" => "{}",
        other => other,
    };
    let message: M = match decode_text(text.as_bytes()) {
        Ok(message) => message,
        Err(_) if text == "{}" && serde_json::from_str::<M>("null").is_ok() => {
            return serde_json::from_str::<M>("null").map_err(|e| Invalid::at("", e.to_string()));
        }
        Err(invalid) => match whole_numbers(text.as_bytes()) {
            Some(text) => decode_text(&text).map_err(|_| invalid)?,
            None => return Err(invalid),
        },
    };
    message.validate()?;
    Ok(message)
}

/// Who keeps the path to each value pays for it with each value: only where there is something to point at.
fn decode_text<M: Message>(text: &[u8]) -> Result<M, Invalid> {
    if let Ok(message) = serde_json::from_slice(text) {
        return Ok(message);
    }
    let mut de = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut de)
        .map_err(|e| Invalid::at(pointer(e.path()), e.inner().to_string()))
}

/// What an agent's JSON door takes.
pub struct Door<A: Agent> {
    /// Its messages, in the order of `Messages`.
    pub entries: Vec<Entry<A>>,
}

impl<A: Agent> Door<A> {
    /// The door of `A`.
    pub fn of() -> Self {
        let mut door = Self { entries: Vec::new() };
        A::Messages::describe(&mut door, Arc::new(|e| e));
        door
    }

    fn add<M: Message>(&mut self, wrap: Wrap<Letter<M>, EnvelopeOf<A>>)
    where
        A: Handler<M>,
    {
        let copy: Copied<A> = {
            let wrap = wrap.clone();
            Arc::new(move |body| {
                let message = body.downcast_ref::<Guarded<M>>()?.get()?.clone();
                Some(wrap(Letter::new(message, ReplyTo::Nobody, None)))
            })
        };
        let decode: Decode<A> = Arc::new(move |body, tx, meta| {
            let message = decode::<M>(body)?;
            let to = tx.map_or(ReplyTo::Nobody, ReplyTo::Json);
            Ok(wrap(Letter::new(message, to, meta)))
        });
        self.entries.push(Entry { shape: Arc::new(Shape::of::<M>(A::READ_ONLY)), decode, copy });
    }

    /// The message of that wire name.
    pub fn find(&self, name: &str) -> Option<&Entry<A>> {
        self.entries.iter().find(|e| e.shape.name == name)
    }
}
