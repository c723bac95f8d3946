-- Tells the GPU worker that its prompts are encoded, or that they cannot be.
-- ARGV: 1 id, 2 token, 3 why not or ''
local key = KEY.encoded .. ARGV[1] .. '/' .. ARGV[2]
redis.call('RPUSH', key, ARGV[3])
redis.call('EXPIRE', key, LIFE.encoded)
return 1
