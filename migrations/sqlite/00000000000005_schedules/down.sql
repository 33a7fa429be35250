DROP TABLE greenroom_schedules;
