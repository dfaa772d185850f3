//! Values on their way to a database and back.

use super::SqlError;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Value {
    /// Nothing, in a place for this kind.
    Null(Kind),
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Which kind of value a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Integer,
    Text,
    Bytes,
}

impl Value {
    fn name(&self) -> &'static str {
        match self {
            Self::Null(_) => "nothing",
            Self::Integer(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// What can be a parameter of a statement.
pub(in super::super) trait Parameter {
    const KIND: Kind;

    fn value(&self) -> Value;
}

/// The values of a statement's parameters, in their order.
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::store::sql::Value::of(&$value)),*] as &[$crate::store::sql::Value]
    };
}
pub(in super::super) use params;

impl Value {
    pub(in super::super) fn of(parameter: &impl Parameter) -> Self {
        parameter.value()
    }
}

impl<T: Parameter + ?Sized> Parameter for &T {
    const KIND: Kind = T::KIND;

    fn value(&self) -> Value {
        (**self).value()
    }
}

impl<T: Parameter> Parameter for Option<T> {
    const KIND: Kind = T::KIND;

    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null(T::KIND), T::value)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(
            impl Parameter for $type {
                const KIND: Kind = Kind::Integer;

                fn value(&self) -> Value {
                    Value::Integer(i64::from(*self))
                }
            }
        )*
    };
}

integers!(i64, u32, u16, bool);

impl Parameter for str {
    const KIND: Kind = Kind::Text;

    fn value(&self) -> Value {
        Value::Text(self.to_owned())
    }
}

impl Parameter for String {
    const KIND: Kind = Kind::Text;

    fn value(&self) -> Value {
        self.as_str().value()
    }
}

impl Parameter for [u8] {
    const KIND: Kind = Kind::Bytes;

    fn value(&self) -> Value {
        Value::Bytes(self.to_vec())
    }
}

impl Parameter for Vec<u8> {
    const KIND: Kind = Kind::Bytes;

    fn value(&self) -> Value {
        self.as_slice().value()
    }
}

impl<const N: usize> Parameter for [u8; N] {
    const KIND: Kind = Kind::Bytes;

    fn value(&self) -> Value {
        self.as_slice().value()
    }
}

/// One row of an answer.
#[derive(Debug)]
pub(in super::super) struct Row {
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self { values }
    }

    /// The value of a column, by its place.
    pub(in super::super) fn get<T: Column>(&self, index: usize) -> Result<T, SqlError> {
        let value = self.values.get(index);
        value.and_then(T::of).ok_or(SqlError::Column {
            index,
            wanted: T::NAME,
            found: value.map_or("no column", Value::name),
        })
    }

    /// All of them.
    pub(in super::super) fn values(&self) -> &[Value] {
        &self.values
    }
}

/// What a column can be read as.
pub(in super::super) trait Column: Sized {
    const NAME: &'static str;

    fn of(value: &Value) -> Option<Self>;
}

impl Column for i64 {
    const NAME: &'static str = "a number";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl Column for bool {
    const NAME: &'static str = "a truth value";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value).map(|number| number != 0)
    }
}

impl Column for u16 {
    const NAME: &'static str = "a number of 16 bits";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value)?.try_into().ok()
    }
}

impl Column for u32 {
    const NAME: &'static str = "a number of 32 bits";

    fn of(value: &Value) -> Option<Self> {
        i64::of(value)?.try_into().ok()
    }
}

impl Column for String {
    const NAME: &'static str = "text";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl Column for Vec<u8> {
    const NAME: &'static str = "bytes";

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl<const N: usize> Column for [u8; N] {
    const NAME: &'static str = "bytes of a fixed number";

    fn of(value: &Value) -> Option<Self> {
        Vec::of(value)?.try_into().ok()
    }
}

impl<T: Column> Column for Option<T> {
    const NAME: &'static str = T::NAME;

    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null(_) => Some(None),
            _ => T::of(value).map(Some),
        }
    }
}
