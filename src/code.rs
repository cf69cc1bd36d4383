//! Closed lists of codes that programs read: each has its text, and all can be listed.
//!
//! What is listed is described in `docs/errors.md`; a test compares the two.

/// Makes an enum of codes: `Name = "text"`, with `ALL` and `as_str`.
macro_rules! codes {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[$what:meta])* $code:ident = $text:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        $vis enum $name {
            $($(#[$what])* $code,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// As programs read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$code => $text,)*
                }
            }
        }
    };
}

pub(crate) use codes;
