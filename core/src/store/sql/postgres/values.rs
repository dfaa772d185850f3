//! Values on their way to PostgreSQL and back.

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::super::value::Kind;
use super::super::{Row, SqlError, Value};

/// `?1` is `$1` here.
pub(super) fn numbered(sql: &str) -> String {
    sql.replace('?', "$")
}

/// Each with its type, so that the database need not be asked for it.
pub(super) fn typed(
    parameters: &[Value],
) -> impl ExactSizeIterator<Item = (&(dyn ToSql + Sync), Type)> + Clone {
    parameters
        .iter()
        .map(|value| (value as &(dyn ToSql + Sync), type_of(value)))
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Integer(_) | Value::Null(Kind::Integer) => Type::INT8,
        Value::Text(_) | Value::Null(Kind::Text) => Type::TEXT,
        Value::Bytes(_) | Value::Null(Kind::Bytes) => Type::BYTEA,
    }
}

pub(super) fn decoded(row: &tokio_postgres::Row) -> Result<Row, SqlError> {
    let columns = row.columns().iter().enumerate();
    let values = columns.map(|(index, column)| {
        let value = match *column.type_() {
            Type::BOOL => get::<bool>(row, index)?.map(|is| Value::Integer(is.into())),
            Type::INT4 => get::<i32>(row, index)?.map(|number| Value::Integer(number.into())),
            Type::INT8 => get::<i64>(row, index)?.map(Value::Integer),
            Type::BYTEA => get::<Vec<u8>>(row, index)?.map(Value::Bytes),
            _ => get::<String>(row, index)?.map(Value::Text),
        };
        Ok(value.unwrap_or(Value::Null(match *column.type_() {
            Type::BOOL | Type::INT4 | Type::INT8 => Kind::Integer,
            Type::BYTEA => Kind::Bytes,
            _ => Kind::Text,
        })))
    });
    Ok(Row::new(values.collect::<Result<_, SqlError>>()?))
}

fn get<'a, T: FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    index: usize,
) -> Result<Option<T>, SqlError> {
    row.try_get(index).map_err(|error| SqlError::Postgres {
        message: error.to_string(),
        code: None,
    })
}

impl ToSql for Value {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null(_) => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql(&Type::INT8, out),
            Self::Text(text) => text.to_sql(&Type::TEXT, out),
            Self::Bytes(bytes) => bytes.to_sql(&Type::BYTEA, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
