//! What a failed call to EC2 means, by what is done next (EC2 API reference, "Error codes for the
//! Amazon EC2 API"). All of EC2's errors are told apart by their code alone.

use std::error::Error;
use std::iter;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;

use crate::aws::never_sent;
use crate::looks::NoAnswer;

/// Characters of a text for operators.
const LONGEST_TEXT: usize = 500;

/// Why a call failed. The texts are for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Too many calls of this kind; nothing happened.
    Throttled,
    /// No room there; nothing happened. Elsewhere there may be.
    Capacity(String),
    /// The account has as many as it may have; nothing happened. Somebody must ask AWS for more.
    Limit(String),
    /// Who we are may not do that; nothing happened. The text names the action.
    Denied(String),
    /// The machine or its disk is not there, or not yet: AWS shows new things late.
    NotFound(String),
    /// It is in a state in which that cannot be done; look again.
    WrongState(String),
    /// An instance that was launched with this client token is there no more.
    TokenSpent,
    /// What we asked for makes no sense to AWS; nothing happened.
    Invalid(String),
    /// It never reached AWS, or AWS said so before it did anything.
    NotDone(String),
    /// The answer was lost or makes no sense: it may have happened.
    Unknown(String),
}

impl From<NoAnswer> for Trouble {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Ending => Self::NotDone(why.to_string()),
            // The region is slow: it is asked again later, and that is no attempt that failed.
            NoAnswer::Late => Self::Throttled,
        }
    }
}

impl Trouble {
    /// For metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Capacity(_) => "capacity",
            Self::Limit(_) => "limit",
            Self::Denied(_) => "denied",
            Self::NotFound(_) => "not_found",
            Self::WrongState(_) => "wrong_state",
            Self::TokenSpent => "token_spent",
            Self::Invalid(_) => "invalid",
            Self::NotDone(_) => "not_done",
            Self::Unknown(_) => "unknown",
        }
    }

    /// When in doubt, [`Self::Unknown`]: a launch that is wrongly taken for undone is repeated.
    pub(super) fn of<E>(error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let text = describe(error);
        match error {
            SdkError::ConstructionFailure(_) => Self::NotDone(text),
            SdkError::DispatchFailure(_) if never_sent(error) => Self::NotDone(text),
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                Self::of_code(error.code().unwrap_or_default(), status, text)
            }
            _ => Self::Unknown(text),
        }
    }

    fn of_code(code: &str, status: u16, text: String) -> Self {
        match code {
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "EC2ThrottledException"
            | "RequestThrottled"
            | "SlowDown"
            | "BandwidthLimitExceeded" => Self::Throttled,
            "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientCapacity"
            | "InsufficientFreeAddressesInSubnet"
            | "InsufficientVolumeCapacity"
            | "InsufficientAddressCapacity"
            | "Unsupported" => Self::Capacity(text),
            "InstanceLimitExceeded"
            | "VcpuLimitExceeded"
            | "VolumeLimitExceeded"
            | "MaxIOPSLimitExceeded"
            | "NetworkInterfaceLimitExceeded"
            | "AddressLimitExceeded"
            | "ResourceCountExceeded"
            | "ResourceLimitExceeded"
            | "PendingVerification"
            | "VolumeModificationRateExceeded" => Self::Limit(text),
            "UnauthorizedOperation"
            | "AccessDenied"
            | "OptInRequired"
            | "Blocked"
            | "OperationNotPermitted" => Self::Denied(text),
            // The credentials are renewed, or the clock is set: the same call works then.
            "ExpiredToken"
            | "RequestExpired"
            | "AuthFailure"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch" => Self::NotDone(text),
            "IncorrectInstanceState"
            | "IncorrectState"
            | "IncorrectModificationState"
            | "VolumeInUse"
            | "UnsupportedOperation" => Self::WrongState(text),
            "IdempotentInstanceTerminated" => Self::TokenSpent,
            // The same token went out with something else: look what that came to.
            "IdempotentParameterMismatch" => Self::Unknown(text),
            "InvalidInstanceID.NotFound" | "InvalidVolume.NotFound" => Self::NotFound(text),
            // Subnet, security group, image: named by the configuration, and so no machine's end.
            // Ours is not half a code that a cut body left: these are refusals of the whole call.
            _ if (400..500).contains(&status) && !code.is_empty() => Self::Invalid(text),
            _ => Self::Unknown(text),
        }
    }
}

/// Not the SDK's own text of a whole answer: that repeats its body.
fn describe<E>(error: &SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let SdkError::ServiceError(context) = error {
        let id = context.raw().request_id().unwrap_or("unknown");
        let status = context.raw().status().as_u16();
        let code = error.code().unwrap_or("no code");
        let message = error.message().unwrap_or("no message");
        return format!("{code}: {message} (status {status}, request {id})");
    }
    let text = iter::successors(Some(error as &dyn Error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str, status: u16) -> &'static str {
        Trouble::of_code(code, status, String::new()).name()
    }

    #[test]
    fn codes_are_told_apart_by_what_is_done_next() {
        assert_eq!(of("RequestLimitExceeded", 503), "throttled");
        assert_eq!(of("InsufficientInstanceCapacity", 500), "capacity");
        assert_eq!(of("VcpuLimitExceeded", 400), "limit");
        assert_eq!(of("UnauthorizedOperation", 403), "denied");
        assert_eq!(of("InvalidInstanceID.NotFound", 400), "not_found");
        assert_eq!(of("IncorrectInstanceState", 400), "wrong_state");
        assert_eq!(of("IdempotentInstanceTerminated", 400), "token_spent");
        assert_eq!(of("InvalidVolume.NotFound", 400), "not_found");
        assert_eq!(of("InvalidParameterValue", 400), "invalid");
        for configured in ["InvalidSubnetID", "InvalidGroup", "InvalidAMIID"] {
            assert_eq!(of(&format!("{configured}.NotFound"), 400), "invalid");
        }
        assert_eq!(of("ExpiredToken", 400), "not_done");
    }

    #[test]
    fn what_is_not_known_may_have_happened() {
        for (code, status) in [
            ("", 500),
            ("", 502),
            ("", 400),
            ("", 200),
            ("InternalError", 500),
            ("Unavailable", 503),
            ("ServiceUnavailable", 503),
            ("SomethingNew", 500),
            ("IdempotentParameterMismatch", 400),
        ] {
            assert_eq!(of(code, status), "unknown", "{code} {status}");
        }
    }
}
