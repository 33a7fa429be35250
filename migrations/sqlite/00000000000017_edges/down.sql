DROP TABLE greenroom_task_edges;
