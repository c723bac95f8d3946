-- Prompts are encoded and about to be stored: they are deleted after a while, should nobody fetch them. The GPU worker may have asked
-- again meanwhile; that is done, too.
-- ARGV: 1 id, 2 token, 3 region, 4 model, 5 prefix of what is stored, 6 ms
redis.call('ZREM', KEY.encodings .. ARGV[3] .. ':' .. ARGV[4], ARGV[1] .. '/' .. ARGV[2])
return redis.call('ZADD', KEY.expiring, integer(now_ms() + tonumber(ARGV[6])), ARGV[5])
