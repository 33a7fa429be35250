DROP TABLE greenroom_acts;
DROP TABLE greenroom_tokens;
