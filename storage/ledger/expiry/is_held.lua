-- Whether a prefix is still to be deleted by the caller, which held it until then.
-- What a move left of a record that is here stays until it is archived, which writes over it, or erased.
-- ARGV: 1 prefix, 2 until when it is held
local id = string.match(ARGV[1], '^records/.+/([%w-]+)')
if id and redis.call('EXISTS', KEY.generation .. id) == 1 then return 0 end
local held = redis.call('ZSCORE', KEY.expiring, ARGV[1])
return held and integer(held) == ARGV[2] and 1 or 0
