-- Uses up a browser token that is good for once.
-- ARGV: 1 token
-- Returns 1 the first time, 0 after that
return redis.call('DEL', KEY.token .. ARGV[1])
