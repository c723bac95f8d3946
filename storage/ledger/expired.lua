-- Object prefixes whose time has come. They stay listed until `forget` is called, so that a deletion that failed is tried again.
-- ARGV: 1 most
return redis.call('ZRANGEBYSCORE', KEY.expiring, '-inf', integer(now_ms()), 'LIMIT', 0, ARGV[1])
