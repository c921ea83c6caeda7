//! Three-valued logic: what is not known stays not known until it no longer matters (Kleene's strong logic).

use std::ops::Not;

use serde::Serialize;

/// Yes, no, or not known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Truth {
    /// Surely not.
    No,
    /// It cannot be told.
    Unknown,
    /// Surely.
    Yes,
}

impl Truth {
    /// Both: no as soon as one is no.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Either: yes as soon as one is yes.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }

    /// Whether all of them hold; yes for none.
    pub fn all(of: impl IntoIterator<Item = Self>) -> Self {
        of.into_iter().fold(Self::Yes, Self::and)
    }

    /// Whether one of them holds; no for none.
    pub fn any(of: impl IntoIterator<Item = Self>) -> Self {
        of.into_iter().fold(Self::No, Self::or)
    }

    /// `not self` if `negated`, else `self`.
    #[must_use]
    pub fn negate_if(self, negated: bool) -> Self {
        if negated { !self } else { self }
    }
}

impl Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Truth::{No, Unknown, Yes};

    #[test]
    fn what_is_not_known_matters_only_where_the_rest_leaves_it_open() {
        assert_eq!([No.and(Unknown), Yes.and(Unknown), No.or(Unknown), Yes.or(Unknown)], [No, Unknown, Unknown, Yes]);
        assert_eq!([!Yes, !Unknown, !No], [No, Unknown, Yes]);
        assert_eq!([Truth::all([]), Truth::any([])], [Yes, No]);
    }
}
