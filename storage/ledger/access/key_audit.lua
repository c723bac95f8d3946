-- What was done to API keys, the latest first.
-- ARGV: 1 how many at the most
return redis.call('XREVRANGE', KEY.audit, '+', '-', 'COUNT', ARGV[1])
