{ prometheusAlerts+:: { groups+: [{ name: 'x', rules: [{ alert: 'X', expr: 'up' }] }] } }
