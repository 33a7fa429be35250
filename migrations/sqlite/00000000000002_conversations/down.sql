DROP TABLE greenroom_sessions;
DROP TABLE greenroom_messages;
DROP TABLE greenroom_conversations;
