DROP TABLE greenroom_subscriptions;
