//! Schedules, and the program's tools.

use serde_json::{Value, json};

use super::{
    operation::{Operation, delete, get, post},
    schemas::{Schemas, own},
};
use crate::{
    model::task::TaskView,
    runtime::views::{ScheduleRequest, ScheduleView, ToolInfo},
};

pub(super) fn operations(s: &mut Schemas, to: &Value, tools: &[ToolInfo]) -> Vec<Operation> {
    let (schedule, view) = ("/schedules/{name}", s.answer::<ScheduleView>());
    let mut all = vec![
        get("/schedules", "listSchedules", "Schedules, by name.").answers(
            200,
            "All of them.",
            s.list::<ScheduleView>(),
        ),
        post("/schedules", "addSchedule", "Has a task submitted again and again.")
            .takes(json!({"allOf": [s.request::<ScheduleRequest>(), to]}))
            .answers(201, "It.", view.clone())
            .tells("Location", "Where it is.")
            .refuses(&[
                (404, "unknown_kind"),
                (404, "unknown_message"),
                (404, "not_found"),
                (409, "wrong_state"),
            ])
            .writes(),
        get(schedule, "getSchedule", "One schedule.").answers(200, "It.", view.clone()),
        delete(schedule, "removeSchedule", "Removes one.")
            .answers_nothing(204, "It is gone.")
            .refuses(&[(409, "wrong_state")])
            .writes(),
        post(&format!("{schedule}/run"), "runSchedule", "Submits its task now.")
            .idempotent()
            .answers(202, "The task.", s.answer::<TaskView>())
            .tells("Location", "Where it is.")
            .refuses(&[(409, "wrong_state"), (429, "overloaded"), (504, "outcome_unknown")])
            .writes(),
        get("/tools", "listTools", "The program's tools.").answers(200, "All of them.", s.list::<ToolInfo>()),
        get("/tools/{name}", "getTool", "One tool.").answers(200, "It.", s.answer::<ToolInfo>()),
    ];
    for (action, does) in [("pause", "Fires it no more."), ("resume", "Ends that.")] {
        all.push(
            post(&format!("{schedule}/{action}"), &format!("{action}Schedule"), does)
                .answers(202, "It is so.", view.clone())
                .refuses(&[(409, "wrong_state")])
                .writes(),
        );
    }
    all.extend(tools.iter().map(call));
    all
}

fn call(tool: &ToolInfo) -> Operation {
    let path = format!("/tools/{}/call", tool.name);
    post(&path, &format!("call_{}", tool.name.replace('.', "_")), &format!("Calls `{}`.", tool.name))
        .patience()
        .idempotent()
        .takes_own(input(tool))
        .answers(200, "The output.", own(&tool.output))
        .refuses(&[(404, "not_found")])
        .runs_code()
}

fn input(tool: &ToolInfo) -> Value {
    let schema = own(&tool.input);
    if schema.is_null() { json!({}) } else { schema }
}
