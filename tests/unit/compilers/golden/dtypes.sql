SELECT * FROM (
SELECT
  "__row",
  sum("__value_0") OVER w0 AS "__result_0",
  avg("__value_0") OVER w0 AS "__result_1",
  min("__value_0") OVER w0 AS "__result_2",
  sum("__value_1"::HUGEINT) OVER w0 AS "__result_3",
  avg("__value_1"::DOUBLE) OVER w0 AS "__result_4",
  min("__value_1") OVER w0 AS "__result_5",
  sum("__value_2"::DECIMAL(38, 2)) OVER w0 AS "__result_6",
  avg("__value_2"::DOUBLE) OVER w0 AS "__result_7",
  min("__value_2") OVER w0 AS "__result_8",
  sum("__value_3"::HUGEINT) OVER w0 AS "__result_9",
  avg("__value_3"::DOUBLE) OVER w0 AS "__result_10",
  min("__value_3") OVER w0 AS "__result_11"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 3600000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
