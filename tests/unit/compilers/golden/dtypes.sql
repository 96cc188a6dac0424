SELECT * FROM (
SELECT
  "__row",
  sum("__value_amount") OVER w0 AS "amount__sum__1h",
  avg("__value_amount") OVER w0 AS "amount__mean__1h",
  min("__value_amount") OVER w0 AS "amount__min__1h",
  sum("__value_units"::HUGEINT) OVER w0 AS "units__sum__1h",
  avg("__value_units"::DOUBLE) OVER w0 AS "units__mean__1h",
  min("__value_units") OVER w0 AS "units__min__1h",
  sum("__value_price"::DECIMAL(38, 2)) OVER w0 AS "price__sum__1h",
  avg("__value_price"::DOUBLE) OVER w0 AS "price__mean__1h",
  min("__value_price") OVER w0 AS "price__min__1h",
  sum("__value_ok"::HUGEINT) OVER w0 AS "ok__sum__1h",
  avg("__value_ok"::DOUBLE) OVER w0 AS "ok__mean__1h",
  min("__value_ok") OVER w0 AS "ok__min__1h"
FROM "line"
WINDOW
  w0 AS (PARTITION BY "__entity" ORDER BY "__time" RANGE BETWEEN 3600000000 PRECEDING AND 0 PRECEDING)
)
WHERE "__row" IS NOT NULL
