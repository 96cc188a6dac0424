SELECT * FROM (
SELECT
  "__row",
  count("__value_0") OVER w0 AS "__result_0",
  count("__value_0") OVER w1 AS "__result_1",
  sum("__value_0") OVER w0 AS "__result_2",
  sum("__value_0") OVER w1 AS "__result_3"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 172800000000 PRECEDING AND 86400000001 PRECEDING),
  w1 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 691200000000 PRECEDING AND 86400000001 PRECEDING)
)
WHERE "__row" IS NOT NULL
