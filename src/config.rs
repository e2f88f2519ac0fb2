//! How values are written in a file, for every format that names its types.

/// A duration as text: `"250ms"`, `"1m 30s"`. With `#[serde(with = "duration")]`.
pub(crate) mod duration {
    use std::fmt;
    use std::time::Duration;

    use humantime::{DurationError, format_duration, parse_duration};
    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    const EXPECTED: &str = r#"a duration such as "250ms" or "1m 30s""#;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Text)
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(|error| {
                let expected = format!("{EXPECTED}: {error}");
                E::invalid_value(Unexpected::Str(text), &expected.as_str())
            })
        }
    }

    /// A sum of spans, each of a number and a unit.
    ///
    /// They are read one by one, as `humantime` 2.4 panics where the nanoseconds of several carry into a second past the
    /// last. And `M`, a month to it, is refused: here it would rather be meant as a minute.
    fn parse(text: &str) -> Result<Duration, DurationError> {
        let mut sum = Duration::ZERO;
        let mut rest = text;
        loop {
            let is_in_unit = |c: char| c.is_alphabetic();
            let start = rest.find(is_in_unit).unwrap_or(rest.len());
            let length = rest[start..].find(|c| !is_in_unit(c));
            let end = length.map_or(rest.len(), |length| start + length);
            if &rest[start..end] == "M" {
                let unit = "M".to_owned();
                return Err(DurationError::UnknownUnit {
                    start,
                    end,
                    unit,
                    value: 0,
                });
            }
            let span = parse_duration(&rest[..end])?;
            sum = sum.checked_add(span).ok_or(DurationError::NumberOverflow)?;
            rest = rest[end..].trim_start();
            if rest.is_empty() {
                return Ok(sum);
            }
        }
    }

    /// As the module above, for what may be left out.
    pub(crate) mod optional {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Deserialize, Serialize)]
        #[serde(transparent)]
        struct Text(#[serde(with = "super")] Duration);

        #[allow(clippy::ref_option, reason = "the signature that serde asks for")]
        pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            duration.map(Text).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::deserialize(deserializer)?.map(|Text(duration)| duration))
        }
    }
}

/// A number, or `"off"` for none. With `#[serde(with = "or_off")]`.
#[cfg(feature = "circuit-breaker")]
pub(crate) mod or_off {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    const OFF: &str = "off";

    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde asks for"
    )]
    pub(crate) fn serialize<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.serialize_f64(*number),
            None => serializer.serialize_str(OFF),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        deserializer.deserialize_any(NumberOrOff)
    }

    struct NumberOrOff;

    impl Visitor<'_> for NumberOrOff {
        type Value = Option<f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a number or \"{OFF}\"")
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Option<f64>, E> {
            Ok(Some(number))
        }

        #[allow(
            clippy::cast_precision_loss,
            clippy::as_conversions,
            reason = "a rate is checked later"
        )]
        fn visit_u64<E: Error>(self, number: u64) -> Result<Option<f64>, E> {
            Ok(Some(number as f64))
        }

        #[allow(
            clippy::cast_precision_loss,
            clippy::as_conversions,
            reason = "a rate is checked later"
        )]
        fn visit_i64<E: Error>(self, number: i64) -> Result<Option<f64>, E> {
            Ok(Some(number as f64))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Option<f64>, E> {
            if text == OFF {
                Ok(None)
            } else {
                Err(E::invalid_value(Unexpected::Str(text), &self))
            }
        }
    }
}

/// An enum as the name of a variant, or as a table of that name and what it holds. With `#[serde(deserialize_with)]`.
///
/// Most formats ask for nothing else; `serde_yaml` and its successors ask for a tag, which they may still have.
pub(crate) mod choice {
    use std::fmt;

    use serde::de::value::{EnumAccessDeserializer, MapAccessDeserializer, StrDeserializer};
    use serde::de::{EnumAccess, Error, MapAccess, Visitor};
    use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

    /// Reads a `T` that is an enum, or an `Option` of one.
    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Choice(deserializer))
    }

    struct Choice<D>(D);

    impl<'de, D: Deserializer<'de>> Deserializer<'de> for Choice<D> {
        type Error = D::Error;

        fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(visitor)
        }

        fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_option(Optional(visitor))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            names: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(Variant { names, visitor })
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
            newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }

    struct Optional<V>(V);

    impl<'de, V: Visitor<'de>> Visitor<'de> for Optional<V> {
        type Value = V::Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.expecting(f)
        }

        fn visit_none<E: Error>(self) -> Result<V::Value, E> {
            self.0.visit_none()
        }

        fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
            self.0.visit_none()
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
            self.0.visit_some(Choice(deserializer))
        }
    }

    struct Variant<V> {
        names: &'static [&'static str],
        visitor: V,
    }

    impl<'de, V: Visitor<'de>> Visitor<'de> for Variant<V> {
        type Value = V::Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of `{}`", self.names.join("`, `"))
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
            let visited = self.visitor.visit_enum(StrDeserializer::new(name));
            if self.names.contains(&name) {
                let reason = format!("`{name}` alone says too little, expected `{{ {name} = .. }}`");
                return visited.map_err(|_| E::custom(reason));
            }
            visited
        }

        fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<V::Value, A::Error> {
            let value = self.visitor.visit_enum(MapAccessDeserializer::new(&mut table))?;
            match table.next_key::<String>()? {
                None => Ok(value),
                Some(key) => Err(A::Error::custom(format_args!(
                    "`{key}` is one too many, expected only one of `{}`",
                    self.names.join("`, `")
                ))),
            }
        }

        fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<V::Value, A::Error> {
            EnumAccessDeserializer::new(tagged).deserialize_any(self.visitor)
        }
    }
}
