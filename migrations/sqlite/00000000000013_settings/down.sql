DROP TABLE greenroom_settings;
