-- A function's statements are planned anew in the first five calls of each connection: half a millisecond each, and more
-- for long lists. Here every call is for the plan that they all come to, and a queue that is worked off in half a
-- second over several connections felt it.
ALTER FUNCTION greenroom_claim_4 SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION greenroom_end_1 SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION greenroom_submit_1 SET plan_cache_mode = force_generic_plan;
