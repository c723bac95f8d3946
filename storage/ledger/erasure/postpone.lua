-- A generation that was to be erased by now is so later.
-- ARGV: 1 id, 2 ms from now
return redis.call('ZADD', KEY.erasing, 'XX', 'CH', integer(now_ms() + tonumber(ARGV[2])), ARGV[1])
