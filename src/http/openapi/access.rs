//! Who may come in.

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
        get("/me", "getMe", "Who asks, and what they may do.").answers(200, "It.", s.answer::<Me>()),
        post("/login-links", "makeLoginLink", "A link that opens the dashboard, once.")
            .needs(Scope::Read)
            .answers(201, "It.", s.answer::<LoginLink>()),
        get("/tokens", "listTokens", "Tokens by name; never themselves.").needs(Scope::Admin).answers(
            200,
            "All of them.",
            s.list::<TokenView>(),
        ),
        post("/tokens", "addToken", "A new token.")
            .needs(Scope::Admin)
            .takes(s.request::<TokenRequest>())
            .answers(201, "It, shown this once.", s.answer::<NewToken>())
            .refuses(&[(409, "wrong_state")])
            .writes(),
        delete("/tokens/{name}", "removeToken", "Revokes a token.")
            .needs(Scope::Admin)
            .answers_nothing(204, "It is none any more.")
            .writes(),
        get("/audit", "listActs", "What operators did, the latest first.")
            .text("who", "Only whose token has this name.")
            .text("subject", "Only what was done to this.")
            .text("action", "Only this action, such as `agent.stop`.")
            .paged(ID)
            .answers(200, "A page.", s.list::<Act>()),
    ]
}
