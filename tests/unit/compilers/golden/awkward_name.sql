SELECT * FROM (
SELECT
  "__row",
  sum("__value_0") OVER w0 AS "__result_0",
  count("__value_1") OVER w0 AS "__result_1"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 86400000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
