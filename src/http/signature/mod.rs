//! AWS Signature Version 4, verified (IAM user guide, "AWS Signature Version 4 for API requests").
//!
//! [`Signature::of`] reads what a request claims, from its `Authorization` header or from the query of a presigned URL;
//! [`Signature::verify`] holds it against a secret. Nothing is trusted that is not under the signature: neither a header
//! whose name begins with `x-amz-` nor the host.

mod canonical;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::request::{Request, decode};
use crate::ids::unhex;
use crate::twin::{self, Protection};

/// Why a request's signature is not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum SignatureError {
    /// There is none.
    Missing,
    /// It is not whole, or not of the only kind there is.
    Incomplete(String),
    /// It is not what the secret gives.
    Mismatch(String),
    /// It was made too long ago, or is not valid yet.
    Expired(String),
}

/// What a request says of who signed it and how.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) access_key_id: String,
    pub(super) region: String,
    pub(super) service: String,
    /// The security token of temporary credentials.
    pub(super) token: Option<String>,
    /// Whether it stands in the query.
    pub(super) presigned: bool,
    /// The day of the credential scope.
    day: String,
    /// `X-Amz-Date` as it was sent, and what it means.
    date: String,
    time: Timestamp,
    /// How long a presigned URL is good for.
    expires: Option<SignedDuration>,
    signed_headers: Vec<String>,
    /// The signature itself.
    mac: Vec<u8>,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What AWS says where the signature is another one.
const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                        Access Key and signing method. Consult the service documentation for details.";

impl Signature {
    /// What the request claims.
    ///
    /// # Errors
    /// [`SignatureError::Missing`] and [`SignatureError::Incomplete`].
    pub(super) fn of(request: &Request) -> Result<Self, SignatureError> {
        let presigned = request.query.split('&').any(|pair| pair.starts_with("X-Amz-Algorithm="));
        match (request.headers.contains_key("authorization"), presigned) {
            (false, false) => Err(SignatureError::Missing),
            (true, false) => Self::of_header(request),
            (false, true) => Self::of_query(&request.query),
            (true, true) => Err(incomplete("A request is signed in its header or in its query, not in both.")),
        }
    }

    fn of_header(request: &Request) -> Result<Self, SignatureError> {
        let header = request.header("authorization").ok_or_else(|| incomplete("There is one Authorization header."))?;
        let (algorithm, rest) = header.trim().split_once(' ').unwrap_or((header, ""));
        if algorithm != ALGORITHM {
            return Err(unsupported(algorithm));
        }
        let field = |wanted: &str| {
            rest.split(',').filter_map(|part| part.trim().split_once('=')).find(|(name, _)| *name == wanted)
        };
        let fields = ["Credential", "Signature", "SignedHeaders"].map(|name| (name, field(name)));
        let mut missing: Vec<_> = fields
            .iter()
            .filter(|(_, found)| found.is_none_or(|(_, value)| value.is_empty()))
            .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
            .collect();
        let date = request.header("x-amz-date").or_else(|| request.header("date"));
        if date.is_none() {
            missing.push(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.".to_owned(),
            );
        }
        if !missing.is_empty() {
            return Err(SignatureError::Incomplete(format!("{} Authorization={ALGORITHM}", missing.join(" "))));
        }
        let [credential, signature, signed_headers] =
            fields.map(|(_, found)| found.map_or("", |(_, value)| value.trim()));
        let token = request.header("x-amz-security-token").map(str::to_owned);
        Self::new(credential, signature, signed_headers, date.unwrap_or_default(), token, None)
    }

    fn of_query(query: &str) -> Result<Self, SignatureError> {
        let field = |wanted: &str| {
            let mut values = query.split('&').filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                (name == wanted).then(|| decode(value, false).map(std::borrow::Cow::into_owned))
            });
            let value = values.next().flatten();
            // A parameter that is there twice means neither.
            if values.next().is_some() { None } else { value }
        };
        let required = |name: &str| {
            field(name)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| incomplete(&format!("AWS query-string parameters must include '{name}'.")))
        };
        let algorithm = required("X-Amz-Algorithm")?;
        if algorithm != ALGORITHM {
            return Err(unsupported(&algorithm));
        }
        let seconds: i64 = required("X-Amz-Expires")?
            .parse()
            .ok()
            .filter(|seconds| (1..=604_800).contains(seconds))
            .ok_or_else(|| incomplete("X-Amz-Expires must be between 1 and 604800 seconds."))?;
        let expires = Some(SignedDuration::from_secs(seconds));
        Self::new(
            &required("X-Amz-Credential")?,
            &required("X-Amz-Signature")?,
            &required("X-Amz-SignedHeaders")?,
            &required("X-Amz-Date")?,
            field("X-Amz-Security-Token"),
            expires,
        )
    }

    fn new(
        credential: &str,
        signature: &str,
        signed_headers: &str,
        date: &str,
        token: Option<String>,
        expires: Option<SignedDuration>,
    ) -> Result<Self, SignatureError> {
        let parts: Vec<_> = credential.split('/').collect();
        let [access_key_id, day, region, service, terminator] = parts[..] else {
            return Err(SignatureError::Incomplete(format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                shown(credential)
            )));
        };
        if terminator != "aws4_request" {
            return Err(mismatch(&format!(
                "Credential should be scoped with a valid terminator: 'aws4_request', not '{}'.",
                shown(terminator)
            )));
        }
        let time = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| TimeZone::UTC.to_timestamp(time))
            .map_err(|_| incomplete(&format!("Date must be in ISO-8601 'basic format'. Got '{}'.", shown(date))))?;
        if !date.starts_with(day) || day.len() != 8 {
            return Err(mismatch(&format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != \
                 '{}', from '{date}'.",
                shown(day),
                &date[..8]
            )));
        }
        if access_key_id.is_empty() || access_key_id.len() > 128 {
            return Err(incomplete("Credential must name an access key id of 1 to 128 characters."));
        }
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            token,
            presigned: expires.is_some(),
            day: day.to_owned(),
            date: date.to_owned(),
            time,
            expires,
            signed_headers: signed_headers.split(';').map(str::to_owned).collect(),
            mac: unhex(signature).filter(|bytes| bytes.len() == 32).ok_or_else(|| mismatch(MISMATCH))?,
        })
    }

    /// Whether `secret` signed exactly this request, at a time within `skew` of `now`, or for a presigned URL before it
    /// expires. The secret is the secret access key's text.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`] and [`SignatureError::Expired`].
    pub(super) fn verify(
        &self,
        request: &Request,
        secret: &[u8],
        now: Timestamp,
        skew: SignedDuration,
    ) -> Result<(), SignatureError> {
        self.within(now, skew)?;
        if twin::is_off(Protection::RequestSignature) {
            return Ok(());
        }
        self.covers(request)?;
        let hash = canonical::payload_hash(request).ok_or_else(|| mismatch(MISMATCH))?;
        let canonical = canonical::request(request, &self.signed_headers, &hash, self.presigned)
            .ok_or_else(|| mismatch(MISMATCH))?;
        let scope = format!("{}/{}/{}/aws4_request", self.day, self.region, self.service);
        let hashed = crate::ids::hex(&Sha256::digest(canonical.as_bytes()));
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", self.date);
        let mut first = Zeroizing::new(b"AWS4".to_vec());
        first.extend_from_slice(secret);
        let mut key = mac(&first, self.day.as_bytes());
        for part in [self.region.as_str(), &self.service, "aws4_request"] {
            key = mac(&*key, part.as_bytes());
        }
        let expected = mac(&*key, to_sign.as_bytes());
        if bool::from(expected[..].ct_eq(&self.mac)) { Ok(()) } else { Err(mismatch(MISMATCH)) }
    }

    fn within(&self, now: Timestamp, skew: SignedDuration) -> Result<(), SignatureError> {
        let latest = self.time.saturating_add(self.expires.unwrap_or(skew)).unwrap_or(Timestamp::MAX);
        let minutes = skew.as_secs() / 60;
        let text = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
        if now > latest {
            let bound = now.saturating_sub(self.expires.unwrap_or(skew)).unwrap_or(Timestamp::MIN);
            let how =
                self.expires.map_or_else(|| format!("{minutes} min"), |expires| format!("{} s", expires.as_secs()));
            return Err(SignatureError::Expired(format!(
                "Signature expired: {} is now earlier than {} ({} - {how}.)",
                self.date,
                text(bound),
                text(now)
            )));
        }
        let bound = now.saturating_add(skew).unwrap_or(Timestamp::MAX);
        if self.time > bound {
            return Err(SignatureError::Expired(format!(
                "Signature not yet current: {} is still later than {} ({} + {minutes} min.)",
                self.date,
                text(bound),
                text(now)
            )));
        }
        Ok(())
    }

    /// What decides over a request must be under its signature.
    fn covers(&self, request: &Request) -> Result<(), SignatureError> {
        let is_signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        let mut unsigned: Vec<_> = request
            .headers
            .keys()
            .map(axum::http::HeaderName::as_str)
            .filter(|name| (*name == "host" || name.starts_with("x-amz-")) && !is_signed(name))
            .collect();
        if !is_signed("host") && !unsigned.contains(&"host") {
            unsigned.push("host");
        }
        unsigned.sort_unstable();
        if unsigned.is_empty() {
            return Ok(());
        }
        Err(mismatch(&format!(
            "There were headers present in the request which were not signed: {}",
            unsigned.join(", ")
        )))
    }
}

fn mac(key: &[u8], data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length (RFC 2104)");
    mac.update(data);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn incomplete(what: &str) -> SignatureError {
    SignatureError::Incomplete(what.to_owned())
}

fn mismatch(what: &str) -> SignatureError {
    SignatureError::Mismatch(what.to_owned())
}

fn unsupported(algorithm: &str) -> SignatureError {
    SignatureError::Incomplete(format!("Unsupported AWS 'algorithm': '{}'.", shown(algorithm)))
}

/// What was sent, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests;
