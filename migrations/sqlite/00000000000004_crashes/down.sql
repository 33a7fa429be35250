DROP TABLE greenroom_crashes;
