//! The condition keys that every request to a service has, whatever it asks for.

use crate::clock::Time;

use super::context::Context;
use super::principal::Principal;
use super::requester::Requester;

/// What a call says of itself besides who makes it and what for.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The Region that it is made in.
    pub region: &'a str,
    /// The service that makes it on the requester's behalf, such as `ec2.us-east-1.amazonaws.com`.
    pub via: Option<&'a str>,
    /// Where it comes from: an address, or a service's name.
    pub source_ip: &'a str,
    /// The client's name and version.
    pub user_agent: &'a str,
    /// When.
    pub now: Time,
}

impl CallFacts<'_> {
    /// Sets the global condition keys of a call by `requester`, also those that say who that is (IAM user guide, "AWS global
    /// condition context keys").
    pub fn describe(&self, requester: &Requester, context: &mut Context) {
        requester.describe(context);
        let now = self.now.to_seconds_string();
        context
            .set("aws:RequestedRegion", self.region)
            .set("aws:CurrentTime", now.as_str())
            .set("aws:EpochTime", (self.now.micros() / 1_000_000).to_string())
            .set("aws:SecureTransport", "true")
            .set("aws:UserAgent", self.user_agent)
            .set("aws:ViaAWSService", self.via.is_some().to_string());
        if self.via.is_none() {
            context.set("aws:SourceIp", self.source_ip);
        } else {
            context.set_unknown("aws:SourceIp", "the service calls from an address of AWS's own");
        }
        match &requester.principal {
            Principal::AssumedRole { .. } => {
                context.set("aws:MultiFactorAuthPresent", "false").set("aws:TokenIssueTime", now);
            }
            // What the service acts for is not part of a call here, but for the account.
            Principal::Service { account, .. } => {
                context.set("aws:SourceAccount", account.as_str());
                context.set_unknown("aws:SourceArn", "for which resource the service acts is not known");
                context.set_unknown("aws:SourceOrgID", "the account's organisation is not known");
            }
            Principal::Root(_) | Principal::User { .. } | Principal::Ec2Infrastructure { .. } => {}
        }
    }
}
