-- An object prefix whose time has come. It stays listed until `forget` is called, so that a deletion that failed is tried again.
-- ARGV: 1 how many to pass over
return redis.call('ZRANGEBYSCORE', KEY.expiring, '-inf', integer(now_ms()), 'LIMIT', ARGV[1], 1)
