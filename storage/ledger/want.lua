-- A model is wanted on a target, once or until it is wanted no more; or it is to be let go.
-- ARGV: 1 target, 2 'once' | 'always' | 'never', 3 ms after which nobody need care any more
redis.call('HSET', KEY.wanted, ARGV[1], cjson.encode({ how = ARGV[2], until_ms = now_ms() + tonumber(ARGV[3]) }))
return 1
