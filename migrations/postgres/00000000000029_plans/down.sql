ALTER FUNCTION greenroom_submit_1 RESET plan_cache_mode;
ALTER FUNCTION greenroom_end_1 RESET plan_cache_mode;
ALTER FUNCTION greenroom_claim_4 RESET plan_cache_mode;
