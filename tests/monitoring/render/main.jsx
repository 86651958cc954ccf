// Draws a dashboard of deploy/grafana as Grafana does, with its own panel components, from a real
// Prometheus: index.html?dashboard=URL&prometheus=URL&minutes=N. Each panel's element says in
// data-state how it went: loading, blank (not drawn yet), ok, empty or error. It knows what our dashboards use: panels of
// type timeseries and stat, and variables that stand for everything.
import {useEffect, useRef, useState, Component} from 'react';
import {createRoot} from 'react-dom/client';
import {FieldType, ThemeContext, createTheme, dateTime, getDisplayProcessor, reduceField, toDataFrame} from '@grafana/data';
import {BigValue, BigValueColorMode, BigValueGraphMode, BigValueTextMode, GlobalStyles, TimeSeries} from '@grafana/ui';

const parameters = new URLSearchParams(location.search);
const to = Date.now(), from = to - 60000 * parameters.get('minutes');
const range = {from: dateTime(from), to: dateTime(to), raw: {from: 'now', to: 'now'}};
const step = Math.max(5, (to - from) / 1000 / 250);
const theme = createTheme({colors: {mode: 'dark'}});
const COLUMN = 50, ROW = 32, GAP = 8;

const withVariables = query =>
  query.replace(/\$(task|run|seed|instance)\b/g, '.*').replaceAll('$__rate_interval', '1m');
const nameOf = (format, labels) => format.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '');

async function load(panel) {
  const frames = [];
  for (const target of panel.targets) {
    const query = new URLSearchParams({query: withVariables(target.expr), start: from / 1000, end: to / 1000, step});
    const answer = await (await fetch(`${parameters.get('prometheus')}/api/v1/query_range?${query}`)).json();
    if (answer.status !== 'success') throw new Error(`${target.expr}: ${answer.error}`);
    for (const {metric, values} of answer.data.result) {
      const config = {...panel.fieldConfig.defaults, displayName: nameOf(target.legendFormat, metric),
                      color: {mode: panel.type === 'timeseries' ? 'palette-classic' : 'thresholds'}};
      frames.push(toDataFrame({refId: target.refId, fields: [
        {name: 'Time', type: FieldType.time, config: {}, values: values.map(v => v[0] * 1000)},
        {name: 'Value', type: FieldType.number, labels: metric, config, values: values.map(v => Number(v[1]))}]}));
    }
  }
  frames.forEach((frame, i) => frame.fields.forEach(field => {
    field.display = getDisplayProcessor({field, theme, timeZone: 'utc'});
    field.state = {displayName: field.config.displayName, seriesIndex: i};
  }));
  return frames;
}

// Whether a panel shows more than its title.
function painted(element) {
  const canvas = element.querySelector('canvas');
  return !canvas || canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v);
}

function Panel({panel}) {
  const [frames, setFrames] = useState(), [error, setError] = useState(), [drawn, setDrawn] = useState(false);
  const element = useRef();
  useEffect(() => { load(panel).then(setFrames, e => setError(String(e))); }, []);
  useEffect(() => {
    if (!frames) return;
    const timer = setInterval(() => { if (painted(element.current)) setDrawn(true); }, 100);
    return () => clearInterval(timer);
  }, [frames]);
  const {x, y, w, h} = panel.gridPos;
  const width = w * COLUMN - GAP, height = h * ROW - GAP;
  const state = error ? 'error' : !frames ? 'loading' : frames.length === 0 ? 'empty' : 'ok';
  return (
    <div ref={element} className="panel" data-title={panel.title} data-state={state === 'ok' && !drawn ? 'blank' : state} title={error}
      style={{position: 'absolute', left: x * COLUMN, top: y * ROW, width, height,
              background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}`}}>
      <div style={{padding: '4px 8px', height: 24, fontWeight: 500}}>{panel.title}</div>
      {state === 'error' && <pre>{error}</pre>}
      {state === 'empty' && <p style={{padding: 8}}>No data</p>}
      {state === 'ok' && panel.type === 'timeseries' &&
        <TimeSeries frames={frames} structureRev={1} width={width - 8} height={height - 30} timeRange={range}
          timeZone="utc" legend={{calcs: [], ...panel.options.legend}} options={panel.options} />}
      {state === 'ok' && panel.type === 'stat' && <Stat frames={frames} width={width - 8} height={height - 30} />}
    </div>);
}

function Stat({frames, width, height}) {
  const field = frames[0].fields[1];
  const value = field.display(reduceField({field, reducers: ['lastNotNull']}).lastNotNull);
  return <BigValue theme={theme} width={width} height={height} value={value} textMode={BigValueTextMode.Value}
    colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} />;
}

class Boundary extends Component {
  state = {};
  static getDerivedStateFromError(error) { return {error}; }
  render() {
    return this.state.error ? <pre className="panel" data-state="error">{String(this.state.error.stack)}</pre>
                            : this.props.children;
  }
}

function Dashboard() {
  const [dashboard, setDashboard] = useState();
  useEffect(() => { fetch(parameters.get('dashboard')).then(r => r.json()).then(setDashboard); }, []);
  if (!dashboard) return null;
  return <>
    <h3 style={{margin: 8}}>{dashboard.title}</h3>
    <div style={{position: 'relative'}}>
      {dashboard.panels.map(p => <Boundary key={p.id}><Panel panel={p} /></Boundary>)}
    </div>
  </>;
}

createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}><GlobalStyles /><Dashboard /></ThemeContext.Provider>);
