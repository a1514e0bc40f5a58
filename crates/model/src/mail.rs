//! Mails that projects' backends have us send (contract/project-backend.md 3.4).

use crate::text_enum;

text_enum!(
    /// What backends have texts for.
    MailTemplate ("template") {
        EmailVerificationCode = "email-verification-code",
        EmailVerificationLink = "email-verification-link",
        ResetPasswordCode = "reset-password-code",
        ResetPasswordLink = "reset-password-link",
        RequestOtp = "request-otp",
    }
);
