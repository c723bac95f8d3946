-- Ends an API key after a while, or earlier where it ends by itself, and notes who did it.
-- ARGV: 1 id, 2 by whom, 3 ms until then
-- Returns {name, value...} of its record, or nothing
return key_ended(ARGV[1], tonumber(ARGV[3]), ARGV[2])
