-- Nobody waits for it any more.
-- ARGV: 1 id, 2 token, 3 region, 4 model
return redis.call('ZREM', KEY.encodings .. ARGV[3] .. ':' .. ARGV[4], ARGV[1] .. '/' .. ARGV[2])
