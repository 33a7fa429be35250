//! Login, tokens and the audit log.

use super::{
    operation::{Operation, delete, get, post},
    patterns::ID,
    schemas::Schemas,
};
use crate::{
    model::{access::Scope, act::Act},
    runtime::views::{LoginLink, Me, NewToken, TokenRequest, TokenView},
};

pub(super) fn operations(s: &mut Schemas) -> Vec<Operation> {
    vec![
        get("/me", "getMe", "Shows the caller and their scope.").answers(200, "The item.", s.answer::<Me>()),
        post("/login-links", "makeLoginLink", "Creates a link that opens the dashboard; it works once.")
            .needs(Scope::Read)
            .answers(201, "The item.", s.answer::<LoginLink>()),
        get("/tokens", "listTokens", "Lists tokens by name, without their secrets.")
            .needs(Scope::Admin)
            .answers(200, "All items.", s.list::<TokenView>()),
        post("/tokens", "addToken", "Creates a token.")
            .needs(Scope::Admin)
            .takes(s.request::<TokenRequest>())
            .answers(201, "The token, shown only now.", s.answer::<NewToken>())
            .refuses(&[(409, "wrong_state")])
            .writes(),
        delete("/tokens/{name}", "removeToken", "Revokes a token.")
            .needs(Scope::Admin)
            .answers_nothing(204, "It is none any more.")
            .writes(),
        get("/audit", "listActs", "Lists the audit log, newest first.")
            .text("who", "Only whose token has this name.")
            .text("subject", "Only what was done to this.")
            .text("action", "Only this action, such as `agent.stop`.")
            .within("Only from this moment on.", "Only from before this moment.")
            .paged(ID)
            .answers(200, "A page.", s.list::<Act>()),
    ]
}
