"""The collector: takes webhooks over HTTP and puts their untouched bytes on Kafka, knowing no payload."""
